"""Who reads the answers: rules, a server, the authors' prompts."""
