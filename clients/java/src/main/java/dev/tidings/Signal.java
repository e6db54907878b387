// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import dev.tidings.v1.Closing;

/** What a message of a watch means to the client; what it means to the caller is in the message itself. */
record Signal(Kind kind, String resumeToken, Change change, Closing closing) {
    enum Kind {
        CHANGE,
        SYNCED,
        RESET,
        UNREADABLE,
        CLOSING,
        /** A bookmark, or a kind of message that is newer than this client. */
        OTHER
    }

    Signal(Kind kind, String resumeToken) {
        this(kind, resumeToken, null, null);
    }

    Signal(String resumeToken, Change change) {
        this(Kind.CHANGE, resumeToken, change, null);
    }

    Signal(String resumeToken, Closing closing) {
        this(Kind.CLOSING, resumeToken, null, closing);
    }
}
