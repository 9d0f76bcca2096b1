"""The reward of an answer: rules, captions, affective trees, one's own; in this process or in workers."""
