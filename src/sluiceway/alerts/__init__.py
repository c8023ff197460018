"""Alerts: what is wrong now, judged from what the house knows of itself, listed and sent.

    facts --rules--> findings --state--> alerts --+--> /api/v1/alerts, /api/v1/rules
                                                  +--> outboxes --guarded client--> receivers

Invariant: judging is pure, and everything here is bounded: alerts, their labels, what waits to be
sent, and how long a receiver may take. Nothing of it runs on the event loop or beside an ack.
"""
