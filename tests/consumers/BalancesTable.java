import static org.apache.kafka.streams.StoreQueryParameters.fromNameAndType;
import static org.apache.kafka.streams.state.QueryableStoreTypes.keyValueStore;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.GlobalKTable;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.ReadOnlyKeyValueStore;

/**
 * A Kafka Streams program as its users write it: every change joined with its balance, of our state topic, and with a
 * topic of their own. Prints a JSON line a change, and at the end the table, a line a balance.
 *
 * <p>java -cp 'JARS/*' BalancesTable.java SERVERS PREFIX CHANGES STATES FOLDER
 */
public class BalancesTable {
    static final ObjectMapper JSON = new ObjectMapper();

    /** One thread writes changes, another the table, and a line is a line. */
    static synchronized void print(ObjectNode line) {
        System.out.println(line);
    }

    /** A record that is no balance ends the program, as it does with any decoder that knows what it wants. */
    static JsonNode balance(byte[] value) {
        try {
            JsonNode node = JSON.readTree(value);
            node.required("amount");
            return node;
        } catch (java.io.IOException error) {
            throw new org.apache.kafka.common.errors.SerializationException(error);
        }
    }

    static final Serde<JsonNode> BALANCE =
            Serdes.serdeFrom(
                    (topic, node) -> node == null ? null : node.toString().getBytes(StandardCharsets.UTF_8),
                    (topic, value) -> value == null ? null : balance(value));

    /** Where the record stands, and its headers, beside its value. */
    static class Placed extends ContextualFixedKeyProcessor<String, JsonNode, ObjectNode> {
        @Override
        public void process(FixedKeyRecord<String, JsonNode> change) {
            ObjectNode line = JSON.createObjectNode();
            context().recordMetadata().ifPresent(place ->
                    line.put("topic", place.topic()).put("partition", place.partition()).put("offset", place.offset()));
            ObjectNode headers = line.put("key", change.key()).putObject("headers");
            change.headers().forEach(header ->
                    headers.put(header.key(), new String(header.value(), StandardCharsets.UTF_8)));
            line.set("value", change.value());
            context().forward(change.withValue(line));
        }
    }

    static KafkaStreams streams(String prefix, Properties settings, CountDownLatch changes, CountDownLatch states) {
        StreamsBuilder builder = new StreamsBuilder();
        KTable<String, JsonNode> balances = builder.table(
                prefix + "balances.state.v1", Consumed.with(Serdes.String(), BALANCE), Materialized.as("balances"));
        GlobalKTable<String, String> desks =
                builder.globalTable(prefix + "desks", Consumed.with(Serdes.String(), Serdes.String()));
        builder.stream(prefix + "balances.changed.v1", Consumed.with(Serdes.String(), BALANCE))
                .processValues(Placed::new)
                .join(balances, (line, balance) -> line.<ObjectNode>set("balance", balance))
                .join(desks, (key, line) -> key, (line, desk) -> line.put("desk", desk))
                .foreach((key, line) -> {
                    print(line);
                    changes.countDown();
                });
        balances.toStream().foreach((key, balance) -> states.countDown());
        return new KafkaStreams(builder.build(settings), settings);
    }

    static Properties settings(String servers, String prefix, String folder) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, prefix + "balances-table");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, folder);
        // Kafka Streams, too, reads what is not committed unless it is told not to.
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.ISOLATION_LEVEL_CONFIG), "read_committed");
        // Our state topic is compacted and complete: the table needs no copy of it in the cluster.
        settings.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        return settings;
    }

    static void printTable(KafkaStreams streams) {
        ReadOnlyKeyValueStore<String, JsonNode> balances =
                streams.store(fromNameAndType("balances", keyValueStore()));
        try (KeyValueIterator<String, JsonNode> rows = balances.all()) {
            rows.forEachRemaining(row -> {
                ObjectNode line = JSON.createObjectNode().put("table", row.key);
                line.set("value", row.value);
                print(line);
            });
        }
    }

    public static void main(String[] args) throws Exception {
        CountDownLatch changes = new CountDownLatch(Integer.parseInt(args[2]));
        CountDownLatch states = new CountDownLatch(Integer.parseInt(args[3]));
        Properties settings = settings(args[0], args[1], args[4]);
        try (KafkaStreams streams = streams(args[1], settings, changes, states)) {
            streams.setUncaughtExceptionHandler(error -> {
                error.printStackTrace();
                Runtime.getRuntime().halt(1);
                return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
            });
            streams.start();
            changes.await();
            states.await();
            printTable(streams);
            streams.close(Duration.ofSeconds(30));
        }
    }
}
