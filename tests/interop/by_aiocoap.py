"""The conversation through aiocoap's Python interface, its bodies read and written by cbor2: nothing of ours on this side
but the table of integer keys.
"""
TITLE=""
STEPS=[]
