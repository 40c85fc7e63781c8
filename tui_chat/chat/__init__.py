"""What a turn is: session, context, reply cleaning, sanitising. Plain Python."""
