// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

/** A watch that goes on by itself and calls back. */
public interface WatchHandle extends AutoCloseable {
    /**
     * Returns the token with which another watch, in another process if need be, goes on right after what was delivered
     * last. Empty when there is none yet. It stays valid after the end of the watch.
     */
    String resumeToken();

    /** Ends the watch. It may be called from any thread, and more than once. */
    @Override
    void close();
}
