"""The READMEs of the clients: one template, and a program for each language that they show."""
