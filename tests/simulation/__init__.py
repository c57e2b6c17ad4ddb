"""The whole of Holdfast under one seeded scheduler and a virtual clock. What is real and what is modelled: README.md."""
