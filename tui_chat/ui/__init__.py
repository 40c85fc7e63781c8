"""Everything that draws; the only floor that knows Textual. Importing it loads none of it."""
