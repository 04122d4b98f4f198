"""The market: prices, order books, trades, tickers, and the channels about them."""
