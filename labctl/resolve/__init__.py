"""From a validated lab to one where everything is decided: cards, ports, budgets, order. Pure."""
