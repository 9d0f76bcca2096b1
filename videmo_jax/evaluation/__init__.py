"""Answers to Emo-CFG's questions, and what they are worth.

answers: items (what is asked) -> batches (prompts of one shape) -> answerer (the model) -> journal (what is done) ->
predictions (the official files); `runner` holds the whole way.
judges: scoring turns predictions and annotations (what they answer) into questions to a judge, and rules make scores of
its replies.
tables: columns (the paper's 40) -> scores and tables, beside the rows of `paper`; `results` writes all that.
"""
