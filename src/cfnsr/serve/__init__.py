"""The web page and its REST API.

FastAPI with a page written by hand, and not a toolkit for demonstrations such as gradio: the timeline stands
under the player and moves with it, works by keyboard and is read out; the page loads nothing from elsewhere,
so it works offline and under a strict content security policy; uploads are limited while they arrive, and are
deleted by this package and not by a framework's cache. That is three static files, and no build step.

One idea a module: `limits` (what is taken), `refusals` (how it is declined), `schemas` (forms of requests and
answers), `uploads` (a request becomes a file), `work` (what is done with it), `jobs` (the queue), `guard`
(who may ask), `routes` and `app` (the API), `server` (a process that serves them).
"""
