"""What several test files build or need."""
