package io.tallygate;

import com.google.protobuf.ListValue;
import com.google.protobuf.NullValue;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Turns plain values into a message's JSON, and back. */
final class Structs {
  private static final double EXACT_MAX = 9_007_199_254_740_992.0;

  private Structs() {}

  static Struct struct(Map<?, ?> values) {
    Struct.Builder message = Struct.newBuilder();
    values.forEach((key, value) -> message.putFields(String.valueOf(key), value(value)));
    return message.build();
  }

  private static Value value(Object value) {
    Value.Builder message = Value.newBuilder();
    if (value == null) {
      message.setNullValue(NullValue.NULL_VALUE);
    } else if (value instanceof Boolean known) {
      message.setBoolValue(known);
    } else if (value instanceof Number known) {
      if (Math.abs(known.doubleValue()) > EXACT_MAX && !(known instanceof Double)) {
        throw new IllegalArgumentException("metadata's numbers are doubles: send " + known
            + " as a string");
      }
      message.setNumberValue(known.doubleValue());
    } else if (value instanceof CharSequence known) {
      message.setStringValue(known.toString());
    } else if (value instanceof Map<?, ?> known) {
      message.setStructValue(struct(known));
    } else if (value instanceof List<?> known) {
      ListValue.Builder list = ListValue.newBuilder();
      known.forEach(each -> list.addValues(value(each)));
      message.setListValue(list);
    } else {
      throw new IllegalArgumentException(
          "metadata has no place for a " + value.getClass().getName());
    }
    return message.build();
  }

  static Map<String, Object> map(Struct message) {
    Map<String, Object> values = new LinkedHashMap<>();
    message.getFieldsMap().forEach((key, value) -> values.put(key, plain(value)));
    return values;
  }

  private static Object plain(Value message) {
    return switch (message.getKindCase()) {
      case BOOL_VALUE -> message.getBoolValue();
      case NUMBER_VALUE -> message.getNumberValue();
      case STRING_VALUE -> message.getStringValue();
      case STRUCT_VALUE -> map(message.getStructValue());
      case LIST_VALUE ->
          message.getListValue().getValuesList().stream().map(Structs::plain).toList();
      default -> null;
    };
  }
}
