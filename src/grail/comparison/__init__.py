"""Methods and seeds on one vanilla model; see CONTRIBUTING.md."""
