"""How fast this project is beside others; `make bench` runs it. Never part of the tests."""
