"""The web page and its REST API.

FastAPI with a page written by hand, and not a toolkit for demonstrations such as gradio: the timeline stands
under the player and moves with it, works by keyboard and is read out; the page loads nothing from elsewhere,
so it works offline and under a strict content security policy; uploads are limited while they arrive, and are
deleted by this package and not by a framework's cache.
"""
