"""The whole of Holdfast under one seeded scheduler and a virtual clock. What is real, what is a model: README.md."""
