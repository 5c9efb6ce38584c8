"""What next: recipes edited, tried and scored, and the graph of what was tried."""
