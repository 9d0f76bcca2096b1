"""Answers from a model: prefill, decode, the choice of the next token, and the search on three levels."""
