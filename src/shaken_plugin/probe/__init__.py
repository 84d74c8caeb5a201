"""What a PBX, SBC or trunk does to the Identity headers of the calls that pass it.

    canaries   calls with known Identity headers, as data, signed by a throw-away authority
    message    SIP messages with their header lines byte for byte
    compare    what was sent and what arrived -> findings, and whether the call still verifies;
               `findings` are its words, `headers` compares the lines
    dialogs    the requests and answers of a call, as bytes; no sockets
    transport  UDP, TCP and TLS
    session    plays the canaries: the caller; `listener` is the called side, `play` one canary under way
    capture    SIP out of pcap and pcapng files; records  out of text files
    passive    the same verdicts from what was recorded before and after a PBX
    advice     what to change in known products
    report     verdicts as plain data and as HTML with the ladder of each call

Read `canaries` and `compare` first. Nothing here decides, signs or verifies calls of others, and
nothing is sent anywhere but to the address that the user names.
"""
