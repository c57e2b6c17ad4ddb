"""The documents are part of the product: tables made from the code, links followed, commands run."""
