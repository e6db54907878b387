// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.tidings.v1.CreateEventRequest;
import java.io.BufferedReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.tools.JavaCompiler;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.api.io.TempDir;

/** The program in the README prints what becomes of a task. */
@EnabledIfEnvironmentVariable(named = "TIDINGS_TEST_TARGET", matches = ".+")
@Timeout(60)
class ReadmeTest {
    private static final Pattern PROGRAM =
            Pattern.compile("and `src/main/java/Follow.java`:\n\n```java\n(.*?)```", Pattern.DOTALL);
    private static final String TARGET = System.getenv("TIDINGS_TEST_TARGET");

    @Test
    void programFollowsTheTasksOfTheDemo(@TempDir Path folder) throws Exception {
        Path program = folder.resolve("Follow.java");
        Files.writeString(program, program(Files.readString(Path.of("README.md"))));
        String libraries = System.getProperty("java.class.path");
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        assertEquals(0, compiler.run(null, null, null, "-cp", libraries, program.toString()));
        CreateEventRequest.Builder task = CreateEventRequest.newBuilder();
        task.getEventBuilder().setType("demo.task").getStatusBuilder();
        String id;
        try (TidingsClient client = TidingsClient.builder(TARGET).build()) {
            id = client.events().createEvent(task.build()).getEvent().getEventId();
        }

        String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        Process running = new ProcessBuilder(List.of(java, "-cp", libraries + ":" + folder, "Follow"))
                .redirectErrorStream(true)
                .start();
        try (BufferedReader output = running.inputReader()) {
            String expected = id + " TASK_STATE_PENDING";
            assertEquals(expected, output.lines().filter(expected::equals).findFirst().orElse("nothing"));
        } finally {
            running.destroyForcibly();
        }
    }

    private static String program(String readme) {
        Matcher found = PROGRAM.matcher(readme);
        assertEquals(true, found.find());
        return found.group(1).replace("127.0.0.1:50051", TARGET);
    }
}
