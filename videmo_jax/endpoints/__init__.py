"""The one client of servers that speak OpenAI's protocol: requests, what was paid for, prices, budgets."""
