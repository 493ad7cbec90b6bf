"""One command in several processes: rank and collectives, how a batch is split over ranks, all-reduced batch norm."""
