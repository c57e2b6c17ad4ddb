"""Scripted agents for `holdfast demo`: standard library only, they know nothing of Holdfast but lines of JSON."""
