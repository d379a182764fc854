"""How good an encoder is: the protocols, and what runs them."""
