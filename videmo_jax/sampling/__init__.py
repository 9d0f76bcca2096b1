"""Answers from a model: prefill, decode, and the choice of the next token."""
