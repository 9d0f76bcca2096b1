"""Answers to Emo-CFG's test files, and what they are worth.

items (what is asked) -> batches (prompts of one shape) -> answerer (the model) -> journal (what is done) -> predictions
(the official files) -> scores; `runner` holds the whole way.
"""
