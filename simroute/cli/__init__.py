"""One thin file a command: parse, call the library, show. May import everything; heavy things inside commands."""
