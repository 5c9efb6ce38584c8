"""The company helpdesk router: a small classifier, its traffic, and everything that goes wrong with it."""
