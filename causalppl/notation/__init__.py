"""The literature's notation, ``P(y[x=1] = 1 | x=0, y=0)``: text to values, and which worlds and rung the values need."""
