def figure(x): return "<b>fig</b>"
