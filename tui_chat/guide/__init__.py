"""The built-in model: weights, tokenizer and the script that trains it. Data, not code."""
