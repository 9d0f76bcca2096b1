"""Answers to Emo-CFG's questions, and what they are worth.

Answering: items (what is asked) -> batches (prompts of one shape) -> answerer (the model) -> journal (what is done) ->
predictions (the official files); `runner` holds the whole way.
Scoring: predictions and annotations (what they answer) -> scoring (questions to a judge of `judging`, such as
rule_judge) -> rules (replies become scores) -> columns (the paper's 40) -> scores and tables, beside the rows of
`paper`; `results` writes what there is to see.
"""
