# A conversation about wine, as the cells of a notebook. It wants `wine.csv` in the workspace of its session:
#
#     export EVERCELL_URL=http://127.0.0.1:8888 EVERCELL_TOKEN=the-token-that-the-server-printed
#     curl -X PUT -H "Authorization: Bearer $EVERCELL_TOKEN" $EVERCELL_URL/v1/sessions/wine
#     curl -T examples/data/wine.csv -H "Authorization: Bearer $EVERCELL_TOKEN" \
#         $EVERCELL_URL/v1/sessions/wine/files/wine.csv
#     evercell run --session wine --cells examples/wine.py
#
# `conversation.py` does the same as a program, and shows what else there is.

# %% Load the file and look at it
import pandas as pd

wine = pd.read_csv("wine.csv")
print(
    f"{len(wine)} rows, {wine.duplicated().sum()} of them twice, "
    f"{wine.isna().sum().sum()} values missing, cultivars spelled {wine['cultivar'].nunique()} ways"
)
wine[["alcohol", "color_intensity", "flavanoids", "proline", "cultivar"]].describe().round(2)

# %% Clean it
wine["cultivar"] = wine["cultivar"].str.strip().str.capitalize()
clean = wine.drop_duplicates().reset_index(drop=True)
measured = list(clean.columns.drop("cultivar"))
clean[measured] = clean[measured].fillna(clean[measured].median())
print(
    f"{len(clean)} rows left, {clean.isna().sum().sum()} values missing, {clean['cultivar'].nunique()} names"
)

# %% Group it
clean.groupby("cultivar")[["alcohol", "color_intensity", "flavanoids", "proline"]].mean().round(2)

# %% Plot it
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
for cultivar, group in clean.groupby("cultivar"):
    axes.scatter(group["flavanoids"], group["color_intensity"], s=20, alpha=0.7, label=cultivar)
axes.set(xlabel="flavanoids", ylabel="colour intensity", title="178 wines of three cultivars")
axes.legend()
plt.show()

# %% Train a model
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

seen, unseen = train_test_split(clean, test_size=0.5, stratify=clean["cultivar"], random_state=0)
scaler = StandardScaler().fit(seen[measured])
inputs = {"seen": scaler.transform(seen[measured]), "unseen": scaler.transform(unseen[measured])}
model = MLPClassifier((32, 16), random_state=0)
history = []
with tqdm(range(200), desc="training", unit="epoch", ncols=90) as epochs:
    for _ in epochs:
        model.partial_fit(inputs["seen"], seen["cultivar"], classes=["Barbera", "Barolo", "Grignolino"])
        history.append(log_loss(unseen["cultivar"], model.predict_proba(inputs["unseen"])))
        epochs.set_postfix(loss=f"{history[-1]:.3f}", refresh=False)
print(f"right for {model.score(inputs['unseen'], unseen['cultivar']):.1%} of {len(unseen)} wines never seen")

# %% See how it learned
figure, axes = plt.subplots(figsize=(6, 2.4), layout="constrained")
axes.plot(range(1, len(history) + 1), history)
axes.set(xlabel="epoch", ylabel="loss", yscale="log", title="Telling apart wines that it has never seen")
plt.show()

# %% Write a result file
result = unseen[["cultivar"]].assign(predicted=model.predict(inputs["unseen"]))
result["sure"] = model.predict_proba(inputs["unseen"]).max(axis=1).round(3)
result.to_csv("predictions.csv", index_label="wine")
result[result["cultivar"] != result["predicted"]]
