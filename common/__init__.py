"""What every part of the project stands on, and what depends on none of them."""
