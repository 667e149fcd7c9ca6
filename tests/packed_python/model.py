def open_message(message, route):
    raise NotImplementedError
