"""Everything that draws; the only floor that knows Textual. Importing the package loads none of it."""
