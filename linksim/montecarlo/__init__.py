"""Monte-Carlo simulation: statistics, result store, engine, output."""
