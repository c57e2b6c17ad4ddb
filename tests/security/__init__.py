"""The security floor of DESIGN §8: each item with the test that would notice its loss."""
