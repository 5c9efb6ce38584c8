"""The steps, one module each: what they let on, what they merge, what they reject and why."""
