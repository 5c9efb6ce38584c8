"""Greets."""

import functools

GREETING = "Grüß Gott"


@functools.cache
def greeting(name):
    return f"{GREETING}, {name}"


class Greeter:
    def greet(self):
        return greeting("all")


async def wait():
    pass
