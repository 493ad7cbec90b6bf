"""Losses and penalties as pure functions, and the regularisers of the discriminator that use them."""
