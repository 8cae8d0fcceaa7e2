"""The Python kernel of an Evercell session; `PROTOCOL.md` beside this package says how it speaks."""
