// Copyright 2026 The Tidings Authors
// SPDX-License-Identifier: Apache-2.0

package dev.tidings;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidings.v1.EventServiceGrpc;
import dev.tidings.v1.EventServiceGrpc.EventServiceImplBase;
import dev.tidings.v1.GetEventRequest;
import dev.tidings.v1.GetEventResponse;
import dev.tidings.v1.WatchEventRequest;
import dev.tidings.v1.WatchEventResponse;
import io.grpc.Attributes;
import io.grpc.CallCredentials;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.SecurityLevel;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerCredentials;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.TlsServerCredentials;
import io.grpc.stub.StreamObserver;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.TrustManagerFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

@Timeout(60)
class ApiKeyTest {
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private static final String PASSWORD = "changeit";

    private final List<String> keys = new CopyOnWriteArrayList<>();

    @Test
    void isSentWithCallsAndWatches() throws Exception {
        try (Wire wire = new Wire(new Empty(), new Recorder());
                TidingsClient client = TidingsClient.builder(wire.target()).apiKey("secret").build()) {
            client.events().getEvent(GetEventRequest.getDefaultInstance());
            client.watch(WatchEventRequest.getDefaultInstance()).hasNext();
        }
        assertEquals(List.of("Bearer secret", "Bearer secret"), keys);
    }

    @Test
    void plaintextIsForThisMachineUnlessToldOtherwise() throws Exception {
        try (Wire wire = new Wire(new Empty())) {
            String port = wire.target().replaceFirst(".*:", "");
            assertEquals(Status.Code.OK, codeOfACall(TidingsClient.builder("dns:///localhost:" + port)));
            // An address that reaches this machine, but is not known for it.
            assertEquals(Status.Code.UNAVAILABLE, codeOfACall(TidingsClient.builder("0.0.0.0:" + port)));
            assertEquals(Status.Code.OK, codeOfACall(TidingsClient.builder("0.0.0.0:" + port).insecure()));
        }
    }

    private static Status.Code codeOfACall(TidingsClient.Builder builder) {
        try (TidingsClient client = builder.build()) {
            client.events().getEvent(GetEventRequest.getDefaultInstance());
            return Status.Code.OK;
        } catch (StatusRuntimeException e) {
            return e.getStatus().getCode();
        }
    }

    @Test
    void isSentOverTls(@TempDir Path folder) throws Exception {
        KeyStore certificate = selfSigned(folder.resolve("keys"));
        Server server = Grpc.newServerBuilderForPort(0, serverCredentials(certificate))
                .addService(new Empty())
                .intercept(new Recorder())
                .build()
                .start();
        try (TidingsClient client = TidingsClient.builder("localhost:" + server.getPort())
                .tls(clientCredentials(certificate))
                .apiKey("secret")
                .build()) {
            client.events().getEvent(GetEventRequest.getDefaultInstance());
        } finally {
            server.shutdownNow();
        }
        assertEquals(List.of("Bearer secret"), keys);
    }

    @ParameterizedTest
    @CsvSource({
        "127.0.0.1, NONE, false, true",
        "::1, NONE, false, true",
        "192.0.2.1, NONE, false, false",
        "192.0.2.1, NONE, true, true",
        "192.0.2.1, PRIVACY_AND_INTEGRITY, false, true",
    })
    void leavesTheMachineOnlyOverTlsUnlessToldTo(String address, SecurityLevel level, boolean insecure, boolean sent) {
        Attributes transport = Attributes.newBuilder()
                .set(Grpc.TRANSPORT_ATTR_REMOTE_ADDR, new InetSocketAddress(address, 50051))
                .build();
        TidingsClient.Builder builder = TidingsClient.builder("tidings.example").apiKey("secret");
        ApiKey key = (insecure ? builder.insecure() : builder).key();
        Applied applied = new Applied();

        key.applyRequestMetadata(new Call(level, transport), Runnable::run, applied);

        if (sent) {
            assertEquals("Bearer secret", applied.headers.get(AUTHORIZATION));
        } else {
            assertEquals(Status.Code.UNAUTHENTICATED, applied.failure.getCode());
            assertTrue(!applied.failure.getDescription().contains("secret"));
        }
    }

    private static KeyStore selfSigned(Path file) throws Exception {
        Process keytool = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "keytool").toString(),
                        "-genkeypair", "-keyalg", "EC", "-dname", "CN=localhost", "-ext", "san=dns:localhost",
                        "-storetype", "PKCS12", "-keystore", file.toString(), "-storepass", PASSWORD)
                .redirectErrorStream(true)
                .redirectOutput(file.resolveSibling("keytool.log").toFile())
                .start();
        assertEquals(0, keytool.waitFor());
        KeyStore keys = KeyStore.getInstance("PKCS12");
        try (InputStream stored = Files.newInputStream(file)) {
            keys.load(stored, PASSWORD.toCharArray());
        }
        return keys;
    }

    private static ServerCredentials serverCredentials(KeyStore keys) throws Exception {
        KeyManagerFactory managers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        managers.init(keys, PASSWORD.toCharArray());
        return TlsServerCredentials.newBuilder().keyManager(managers.getKeyManagers()).build();
    }

    private static ChannelCredentials clientCredentials(KeyStore keys) throws Exception {
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        trusted.setCertificateEntry("server", keys.getCertificate("mykey"));
        TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(trusted);
        return TlsChannelCredentials.newBuilder().trustManager(managers.getTrustManagers()).build();
    }

    private final class Recorder implements ServerInterceptor {
        @Override
        public <Q, R> ServerCall.Listener<Q> interceptCall(
                ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
            keys.add(headers.get(AUTHORIZATION));
            return next.startCall(call, headers);
        }
    }

    private static final class Empty extends EventServiceImplBase {
        @Override
        public void getEvent(GetEventRequest request, StreamObserver<GetEventResponse> observer) {
            observer.onNext(GetEventResponse.getDefaultInstance());
            observer.onCompleted();
        }

        @Override
        public void watchEvent(WatchEventRequest request, StreamObserver<WatchEventResponse> observer) {
            observer.onNext(ScriptedEvents.terminal("1"));
            observer.onCompleted();
        }
    }

    private static final class Call extends CallCredentials.RequestInfo {
        private final SecurityLevel level;
        private final Attributes transport;

        Call(SecurityLevel level, Attributes transport) {
            this.level = level;
            this.transport = transport;
        }

        @Override
        public MethodDescriptor<?, ?> getMethodDescriptor() {
            return EventServiceGrpc.getGetEventMethod();
        }

        @Override
        public SecurityLevel getSecurityLevel() {
            return level;
        }

        @Override
        public String getAuthority() {
            return "tidings.example";
        }

        @Override
        public Attributes getTransportAttrs() {
            return transport;
        }
    }

    private static final class Applied extends CallCredentials.MetadataApplier {
        private Metadata headers;
        private Status failure;

        @Override
        public void apply(Metadata headers) {
            this.headers = headers;
        }

        @Override
        public void fail(Status status) {
            failure = status;
        }
    }
}
