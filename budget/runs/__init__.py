"""What whole runs take: days, dollars, energy and carbon, and what failing devices leave of them."""
