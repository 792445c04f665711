// A room that has no source yet.
