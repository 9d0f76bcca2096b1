"""Who answers the questions: the model here or a server, item by item, and what is kept of it."""
