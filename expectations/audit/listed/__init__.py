"""The corruptions, table by table; expectations.audit.corruptions puts them together and freezes them."""
