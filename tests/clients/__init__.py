"""What holds the clients, and the pages about them, to one behaviour."""
