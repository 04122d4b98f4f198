"""
The market: prices, order books, trades, tickers, and the channels about them.

May import `errors` and the other parts of the simulated exchange.
"""
